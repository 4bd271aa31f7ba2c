module github.com/channels-go/channels

go 1.25
