;; Neither is too large; both are together: tables count with memories.
(table $table 0 funcref)
(func $scan (param $bundle i32) (result i32)
  (if (i32.eq (table.grow $table (ref.null func) (i32.const 9900)) (i32.const -1)) (then (unreachable)))
  (if (i32.eq (memory.grow (i32.const 1023)) (i32.const -1)) (then (unreachable)))
  (call $find (local.get $bundle))
  (i32.const 512))
