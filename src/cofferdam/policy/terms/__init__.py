"""What a policy may say of each broker, and what follows from it. PURE; one module for each broker."""
