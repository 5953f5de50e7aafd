"""E-mail to people: alerts and reports, written with their cause and sent until a mail server takes them."""
