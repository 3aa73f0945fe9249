(data $words (i32.const 1024) "r2script honest")
