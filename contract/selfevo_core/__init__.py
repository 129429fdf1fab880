"""What Jobs in a cluster and processes on one machine share: what is observed -> what is done, and the status. Pure."""
