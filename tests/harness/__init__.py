"""What the tests stand on: real servers, built once and started on loopback, and proxies that misbehave on purpose."""
