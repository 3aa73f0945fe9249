;; 10,000 settings that are wrong, each with a key that clears a terminal.
(data $hidden (i32.const 3000) "\1b[2J")
(func $configure (param i32 i32 i32 i32) (result i32)
  (local $at i32)
  (if (i32.eq (memory.grow (i32.const 3)) (i32.const -1)) (then (unreachable)))
  (local.set $at (i32.const 65536))
  (loop $again
    (i32.store (local.get $at) (i32.const 3000)) (i32.store offset=4 (local.get $at) (i32.const 4))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br_if $again (i32.lt_u (local.get $at) (i32.const 225536))))
  (i32.store8 (i32.const 16) (i32.const 1))
  (i32.store (i32.const 24) (i32.const 65536)) (i32.store (i32.const 28) (i32.const 10000))
  (i32.const 16))
