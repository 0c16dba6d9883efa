"""etcd v3's messages: *.proto here, and what `make generate` makes of them."""
