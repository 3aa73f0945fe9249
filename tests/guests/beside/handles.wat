;; A table of handles is memory of the runtime, which no limit of the guest's memory counts.
(component
  (type $thing (resource (rep i32)))
  (core func $new (canon resource.new $thing))
  (core module $hoarder
    (import "things" "new" (func $new (param i32) (result i32)))
    (func $hoard
      (local $count i32)
      (loop $again
        (drop (call $new (i32.const 1)))
        (br_if $again (i32.lt_u
          (local.tee $count (i32.add (local.get $count) (i32.const 1)))
          (i32.const 1000000)))))
    (start $hoard))
  (core instance $things (export "new" (func $new)))
  (core instance (instantiate $hoarder (with "things" (instance $things)))))
