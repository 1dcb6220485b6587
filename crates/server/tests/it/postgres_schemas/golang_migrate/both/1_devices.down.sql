DROP TABLE measurements, "Devices";
