;; Instantiation runs guest code: limits must stand before it.
(func $spin (loop $again (br $again)))
(start $spin)
