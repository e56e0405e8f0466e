"""Asks a server what it offers, by reflection (v1alpha) and by health checks, as grpcio's own tools do."""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main():
    given = json.load(sys.stdin)
    with grpc.insecure_channel(given["address"]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = sorted(database.get_services())
        pool = DescriptorPool(database)
        methods = {
            name: [method.name for method in pool.FindServiceByName(name).methods]
            for name in services
            if name.startswith("tokenward.")
        }
        health = health_pb2_grpc.HealthStub(channel)
        statuses = {}
        for name in ["", *methods]:
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
            statuses[name] = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    json.dump({"services": services, "methods": methods, "health": statuses}, sys.stdout)


main()
