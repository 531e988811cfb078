"""Float networks to quantize: the zoo's and the user's own."""
