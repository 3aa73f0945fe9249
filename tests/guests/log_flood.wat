;; 100,000 lines of 2 KiB.
(func $scan (param $bundle i32) (result i32)
  (local $count i32)
  (loop $again
    (call $emit (i32.const 3) (i32.const 8192) (i32.const 2048))
    (br_if $again (i32.lt_u
      (local.tee $count (i32.add (local.get $count) (i32.const 1)))
      (i32.const 100000))))
  (call $find (local.get $bundle))
  (i32.const 512))
