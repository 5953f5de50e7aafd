"""The engine behind Redis: queue, messages, client, worker."""
