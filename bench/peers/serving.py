"""gunicorn as Stampman has it: its class, threads and times, no more."""

from stampman import serving

worker_class = serving.worker_class
threads = serving.threads
timeout = serving.timeout
keepalive = serving.keepalive
control_socket_disable = serving.control_socket_disable
