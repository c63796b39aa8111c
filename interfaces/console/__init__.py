"""The console: pages for people, over the same views and calls as the API."""
