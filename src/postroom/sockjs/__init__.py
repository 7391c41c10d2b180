"""SockJS framing without I/O."""
