"""What the API server's lists and watches show of Jobs and pods. Pure: time is handed in."""
