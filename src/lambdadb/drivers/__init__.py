"""What differs between drivers, behind the protocol of `lambdadb.drivers.base`."""
