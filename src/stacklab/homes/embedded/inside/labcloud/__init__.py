"""What runs inside the embedded cloud, with the cloud environment's Python only; never imports stacklab.

Found through PYTHONPATH; the entry points in labcloud-*.dist-info make OpenStack load its drivers by name.
"""
