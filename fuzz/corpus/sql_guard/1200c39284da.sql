SELECT pid FROM processes -- harmless
; DELETE FROM processes