"""What a subscription sends, fetches and has proof of, without I/O."""
