;; Two memories, each within the limit.
(component
  (core module $more (memory 600))
  (core instance (instantiate $more)))
