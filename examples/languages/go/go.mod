module sticky-sessions

go 1.24
