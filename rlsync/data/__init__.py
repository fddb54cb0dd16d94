"""Problems, the stream that training draws them from, and their conversion to token ids."""
