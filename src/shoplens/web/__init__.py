"""The HTTP edge: `create_app(platform)` joins the JSON API and the console."""
