"""What decoded pixels and JPEG headers tell of the compression before: exact, or nothing."""
