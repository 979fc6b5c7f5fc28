"""A server that recognises the audio of many clients while it arrives, and a page to try it; see README.md."""
