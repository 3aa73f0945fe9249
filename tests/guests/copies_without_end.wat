;; One instruction for 60 MiB: fuel hardly counts it.
(func $scan (param $bundle i32) (result i32)
  (if (i32.eq (memory.grow (i32.const 960)) (i32.const -1)) (then (unreachable)))
  (loop $again
    (memory.copy (i32.const 65536) (i32.const 65537) (i32.const 62000000))
    (br $again))
  (unreachable))
