"""What a quantized layer costs on hardware."""
