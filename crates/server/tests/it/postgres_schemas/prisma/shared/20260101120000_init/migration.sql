-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "public";

-- CreateEnum
CREATE TYPE "order_status" AS ENUM ('DRAFT', 'PLACED', 'PAID');

-- CreateTable
CREATE TABLE "User" (
    "tenant_id" TEXT NOT NULL,
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "email" VARCHAR(320) NOT NULL,
    "avatar" BYTEA,
    "settings" JSONB NOT NULL DEFAULT '{}',
    "tags" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "lastSeen" TIMESTAMPTZ(6),
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "User_pkey" PRIMARY KEY ("tenant_id","id")
);

-- CreateTable
CREATE TABLE "Category" (
    "tenant_id" TEXT NOT NULL,
    "id" SERIAL NOT NULL,
    "title" TEXT NOT NULL,
    "parentId" INTEGER,

    CONSTRAINT "Category_pkey" PRIMARY KEY ("tenant_id","id")
);

-- CreateTable
CREATE TABLE "products" (
    "tenant_id" TEXT NOT NULL,
    "id" BIGSERIAL NOT NULL,
    "sku" TEXT NOT NULL,
    "price" DECIMAL(12,2) NOT NULL,
    "cost" MONEY,
    "attributes" JSONB,
    "images" BYTEA[],
    "available" DATE,
    "opensAt" TIME(6),
    "barcode" BIT(8),
    "origin" INET,
    "raw" XML,

    CONSTRAINT "products_pkey" PRIMARY KEY ("tenant_id","id")
);

-- CreateTable
CREATE TABLE "CategoryProduct" (
    "tenant_id" TEXT NOT NULL,
    "categoryId" INTEGER NOT NULL,
    "productId" BIGINT NOT NULL,

    CONSTRAINT "CategoryProduct_pkey" PRIMARY KEY ("tenant_id","categoryId","productId")
);

-- CreateTable
CREATE TABLE "Order" (
    "tenant_id" TEXT NOT NULL,
    "id" UUID NOT NULL,
    "number" SERIAL NOT NULL,
    "userId" UUID NOT NULL,
    "status" "order_status" NOT NULL DEFAULT 'DRAFT',
    "total" DECIMAL(65,30) NOT NULL DEFAULT 0,
    "payload" JSON,
    "placedAt" TIMESTAMP(3),

    CONSTRAINT "Order_pkey" PRIMARY KEY ("tenant_id","id")
);

-- CreateTable
CREATE TABLE "OrderItem" (
    "tenant_id" TEXT NOT NULL,
    "orderId" UUID NOT NULL,
    "position" INTEGER NOT NULL,
    "productId" BIGINT NOT NULL,
    "amount" SMALLINT NOT NULL,

    CONSTRAINT "OrderItem_pkey" PRIMARY KEY ("tenant_id","orderId","position")
);

-- CreateTable
CREATE TABLE "Review" (
    "tenant_id" TEXT NOT NULL,
    "userId" UUID NOT NULL,
    "productId" BIGINT NOT NULL,
    "stars" SMALLINT NOT NULL,
    "text" TEXT,

    CONSTRAINT "Review_pkey" PRIMARY KEY ("tenant_id","userId","productId")
);

-- CreateIndex
CREATE UNIQUE INDEX "User_tenant_id_email_key" ON "User"("tenant_id", "email");

-- CreateIndex
CREATE INDEX "products_attributes_idx" ON "products" USING GIN ("attributes" jsonb_path_ops);

-- CreateIndex
CREATE UNIQUE INDEX "products_tenant_id_sku_key" ON "products"("tenant_id", "sku");

-- CreateIndex
CREATE UNIQUE INDEX "Order_tenant_id_number_key" ON "Order"("tenant_id", "number");

-- AddForeignKey
ALTER TABLE "Category" ADD CONSTRAINT "Category_tenant_id_parentId_fkey" FOREIGN KEY ("tenant_id", "parentId") REFERENCES "Category"("tenant_id", "id") ON DELETE NO ACTION ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "CategoryProduct" ADD CONSTRAINT "CategoryProduct_tenant_id_categoryId_fkey" FOREIGN KEY ("tenant_id", "categoryId") REFERENCES "Category"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "CategoryProduct" ADD CONSTRAINT "CategoryProduct_tenant_id_productId_fkey" FOREIGN KEY ("tenant_id", "productId") REFERENCES "products"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "Order" ADD CONSTRAINT "Order_tenant_id_userId_fkey" FOREIGN KEY ("tenant_id", "userId") REFERENCES "User"("tenant_id", "id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "OrderItem" ADD CONSTRAINT "OrderItem_tenant_id_orderId_fkey" FOREIGN KEY ("tenant_id", "orderId") REFERENCES "Order"("tenant_id", "id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "OrderItem" ADD CONSTRAINT "OrderItem_tenant_id_productId_fkey" FOREIGN KEY ("tenant_id", "productId") REFERENCES "products"("tenant_id", "id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "Review" ADD CONSTRAINT "Review_tenant_id_userId_fkey" FOREIGN KEY ("tenant_id", "userId") REFERENCES "User"("tenant_id", "id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "Review" ADD CONSTRAINT "Review_tenant_id_productId_fkey" FOREIGN KEY ("tenant_id", "productId") REFERENCES "products"("tenant_id", "id") ON DELETE RESTRICT ON UPDATE CASCADE;
