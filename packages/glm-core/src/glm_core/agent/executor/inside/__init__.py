"""What runs inside a sandbox: only the standard library, and ipykernel for the kernel itself.

The first process of a sandbox (`warden.py`) imports this folder as a package of its own, without
glm_core, so the modules here import each other relatively and nothing else of the repository.
"""
