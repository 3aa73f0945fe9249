;; More instances than a plugin may have.
(component
  (core module $one)
  (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one))
  (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one))
  (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one))
  (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one)) (core instance (instantiate $one))
)
