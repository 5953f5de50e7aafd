"""The engine behind a queue: photos go through Redis Streams to workers, on this machine or others. Extra `scale`."""
