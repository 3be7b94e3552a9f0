"""Recipes for a cluster: Dockerfile, KubeRay manifests, storage policies. See README.md."""
