"""What people are shown: pages whose values say where in the interface they are from."""
