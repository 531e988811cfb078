"""What low-bit networks cost on GPUs: data sheets, rooflines, models fitted to timings, and the kernels that are timed."""
