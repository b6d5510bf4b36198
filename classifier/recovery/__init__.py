"""From decoded pixels back to the JPEG file that decodes to them."""
