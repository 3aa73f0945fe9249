;; The honest gate: one finding of rule r1 over the whole script. Every other file of this folder says what a hostile guest
;; has instead: a form takes the place of the one with the same name in here, or comes on top.
;;
;; Memory: 16 an answer of `configure` (ok), 512 the answer of `scan`, 1024 words, 2048 the finding, from 4096 on a heap
;; that only grows. The layout of records is that of the canonical ABI:
;; https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md
(import "sluice:gate/log@0.1.0" "emit" (func $emit (param $level i32) (param $text i32) (param $length i32)))
(memory $memory 1)
(global $heap (mut i32) (i32.const 4096))
(data $words (i32.const 1024) "r1script honest")
(func $realloc (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and
    (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
    (i32.sub (i32.const 0) (local.get $align))))
  (global.set $heap (i32.add (local.get $at) (local.get $size)))
  (loop $again
    (if (i32.gt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16)))
      (then
        (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (unreachable)))
        (br $again))))
  (local.get $at))
(func $configure (param $settings i32) (param $count i32) (param $data i32) (param $packs i32) (result i32)
  (i32.const 16))
;; Writes the finding and an answer that has nothing else. `bundle.script.text` is at 24, its length at 28.
(func $find (param $bundle i32)
  (i32.store (i32.const 2048) (i32.const 1024)) (i32.store (i32.const 2052) (i32.const 2)) ;; rule
  (i32.store8 (i32.const 2056) (i32.const 1)) ;; severity: low
  (i32.store8 (i32.const 2057) (i32.const 2)) ;; confidence: high
  (i32.store (i32.const 2060) (i32.const 1033)) (i32.store (i32.const 2064) (i32.const 6)) ;; message
  (i32.store8 (i32.const 2072) (i32.const 1)) ;; primary: some
  (i64.store (i32.const 2080) (i64.const 0)) ;; its start
  (i64.store (i32.const 2088) (i64.extend_i32_u (i32.load offset=28 (local.get $bundle)))) ;; its end
  (i32.store (i32.const 2104) (i32.const 1026)) (i32.store (i32.const 2108) (i32.const 6)) ;; subject
  (i32.store (i32.const 516) (i32.const 2048)) (i32.store (i32.const 520) (i32.const 1)))
(func $scan (param $bundle i32) (result i32)
  (call $find (local.get $bundle))
  (i32.const 512))
(func $scanned (param $answer i32))
(export "memory" (memory $memory))
(export "cabi_realloc" (func $realloc))
(export "sluice:gate/scanner@0.1.0#configure" (func $configure))
(export "sluice:gate/scanner@0.1.0#scan" (func $scan))
(export "cabi_post_sluice:gate/scanner@0.1.0#scan" (func $scanned))
