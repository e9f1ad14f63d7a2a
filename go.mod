module disdel

go 1.26
