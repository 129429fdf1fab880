"""What a phase reads before it begins: models, data, and what is wrong with them."""
