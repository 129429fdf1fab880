"""Several processes on several nodes: started, joined, and ended as one."""
