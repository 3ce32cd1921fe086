"""What runs on asyncio: channels, scopes, execution, transport, and the process's account."""
