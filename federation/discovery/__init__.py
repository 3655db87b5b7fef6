"""Find the services of this cluster. Objects are Kubernetes objects, wherever they come from."""
