;; A message that clears a terminal, forges a line, and turns what follows around.
(data $hidden (i32.const 3000) "\1b[2J\0d\0aallowed\e2\80\a8\e2\80\ae\f3\a0\81\81")
(func $scan (param $bundle i32) (result i32)
  (call $find (local.get $bundle))
  (i32.store (i32.const 2060) (i32.const 3000)) (i32.store (i32.const 2064) (i32.const 23))
  (i32.const 512))
