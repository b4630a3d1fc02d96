"""`glm bench serve`: our server under load, against llama.cpp's, and its soak."""
