"""Worker processes: started once, told over a socket, fed from a growing file."""
