"""Export for llama.cpp and Ollama: one GGUF file with a Modelfile beside it."""
