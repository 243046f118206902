package dev.tfcompress.demo.tensor

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** An integer grid: real = scale * (integer - zeroPoint). */
data class Grid(val scale: Float, val zeroPoint: Int)

/** An input or output of a model; [grid] is null where values are taken as they are. */
data class TensorInfo(val name: String, val type: ElementType, val shape: List<Int>, val grid: Grid? = null) {
    val elements: Int get() = shape.fold(1) { product, size -> Math.multiplyExact(product, size) }
    val bytes: Int get() = Math.multiplyExact(elements, type.bytes)

    /** Memory for its values, as the runtime wants it. */
    fun buffer(): ByteBuffer = direct(bytes)

    companion object {
        fun direct(bytes: Int): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())
    }
}

/** Values of tensors: from bytes and into them. */
object Values {
    /** Raw numbers of a buffer, whatever their type; doubles hold all but the largest of 64 bits. */
    fun raw(buffer: ByteBuffer, type: ElementType): DoubleArray {
        val from = buffer.duplicate().order(buffer.order())
        from.rewind()
        return DoubleArray(from.remaining() / type.bytes) {
            when (type) {
                ElementType.FLOAT32 -> from.float.toDouble()
                ElementType.INT8 -> from.get().toDouble()
                ElementType.UINT8 -> (from.get().toInt() and 0xFF).toDouble()
                ElementType.INT16 -> from.short.toDouble()
                ElementType.INT32 -> from.int.toDouble()
                ElementType.INT64 -> from.long.toDouble()
                ElementType.BOOL -> if (from.get().toInt() == 0) 0.0 else 1.0
            }
        }
    }

    /** Real numbers of a buffer: integers of a grid become what they stand for. */
    fun real(buffer: ByteBuffer, info: TensorInfo): DoubleArray {
        val found = raw(buffer, info.type)
        val grid = info.grid ?: return found
        // In float32, as the runtime and Python compute it.
        for (i in found.indices) found[i] = ((found[i] - grid.zeroPoint).toFloat() * grid.scale).toDouble()
        return found
    }

    /**
     * Real numbers into a buffer: clip(round(real / scale) + zeroPoint) where there is a grid, halves to even.
     *
     * @throws IllegalArgumentException where the number of values does not fit, or one is not a number.
     */
    fun put(real: FloatArray, info: TensorInfo, into: ByteBuffer) {
        require(real.size == info.elements) { "${info.name} takes ${info.elements} values, there are ${real.size}" }
        into.rewind()
        val grid = info.grid
        if (info.type == ElementType.FLOAT32) {
            into.asFloatBuffer().put(real)
            return
        }
        requireNotNull(grid) { "${info.name} takes plain ${info.type.key} values, not real ones" }
        val (low, high) = limits(info.type)
        for (value in real) {
            require(!value.isNaN()) { "${info.name} has no integer for what is not a number" }
            val step = Math.rint((value / grid.scale).toDouble()) + grid.zeroPoint
            val integer = step.coerceIn(low.toDouble(), high.toDouble()).toInt()
            if (info.type == ElementType.INT16) into.putShort(integer.toShort()) else into.put(integer.toByte())
        }
        into.rewind()
    }

    private fun limits(type: ElementType): Pair<Int, Int> = when (type) {
        ElementType.INT8 -> -128 to 127
        ElementType.UINT8 -> 0 to 255
        ElementType.INT16 -> -32768 to 32767
        else -> throw IllegalArgumentException("${type.key} has no grid")
    }
}
