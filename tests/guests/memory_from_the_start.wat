;; 65 MiB before anything runs.
(memory $memory 1040)
