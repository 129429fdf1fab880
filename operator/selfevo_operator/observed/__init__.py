"""What the API server's lists and watches say about Jobs and pods. Pure: time is handed in."""
