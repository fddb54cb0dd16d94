"""Problems, the stream that training draws from, and their way to token ids."""
